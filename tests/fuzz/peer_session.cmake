director_fuzz(NAME peer_session SOURCES peer_session_fuzz.c LIBS director_agent_io)
