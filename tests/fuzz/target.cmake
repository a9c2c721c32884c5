director_fuzz(NAME iscsi_login SOURCES iscsi_login_fuzz.c LIBS director_target_core)
director_fuzz(NAME iscsi_pdu SOURCES iscsi_pdu_fuzz.c LIBS director_target_core)
director_fuzz(NAME scsi_cdb SOURCES scsi_cdb_fuzz.c LIBS director_target_core)
director_fuzz(NAME scsi_forward SOURCES scsi_forward_fuzz.c LIBS director_target_core)
