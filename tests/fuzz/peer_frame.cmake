director_fuzz(NAME peer_frame SOURCES peer_frame_fuzz.c LIBS director_agent_io)
