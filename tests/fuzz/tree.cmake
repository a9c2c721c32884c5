director_fuzz(NAME tree SOURCES tree_fuzz.c LIBS director_agent_core)
