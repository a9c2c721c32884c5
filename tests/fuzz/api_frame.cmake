director_fuzz(NAME api_frame SOURCES api_frame_fuzz.c LIBS director_agent_api)
