director_fuzz(NAME rsm_message SOURCES rsm_message_fuzz.c LIBS director_agent_core)
