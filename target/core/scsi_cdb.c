#include "target/core/scsi_cdb.h"

#include "director/base/bytes.h"
#include "target/core/scsi_unit.h"

#define R  SCSI_COMMAND_READS
#define W  SCSI_COMMAND_WRITES
#define A  SCSI_COMMAND_ALWAYS
#define NU SCSI_COMMAND_NO_UA
#define M  SCSI_COMMAND_MEDIUM
#define AN SCSI_COMMAND_ANY_NODE
#define RG SCSI_COMMAND_RANGE
#define AT SCSI_COMMAND_ATOMIC

/* Usage maps: a set bit is evaluated (SPC-4 r37 §6.35.3). The control byte's NACA is evaluated and refused. */
#define MAP6(b1, b2, b3, b4)  {0xff, b1, b2, b3, b4, 0x04}
#define MAP10(b1)             {0xff, b1, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0x04}
#define MAP12(b1)             {0xff, b1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0x04}
#define MAP16(b1)                                                                                                       \
    {0xff, b1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0x04}
#define SERVICE(op, sa) .opcode = (op), .service_action = (sa), .has_service_action = true

static const struct scsi_command commands[] = {
    {SCSI_TEST_UNIT_READY, .cdb_bytes = 6, .flags = M | R, .usage = MAP6(0, 0, 0, 0), .execute = scsi_test_unit_ready},
    {SCSI_REQUEST_SENSE, .cdb_bytes = 6, .flags = A | NU, .usage = MAP6(1, 0, 0, 0xff), .execute = scsi_request_sense},
    {SCSI_READ_6, .cdb_bytes = 6, .flags = R | M | RG, .usage = MAP6(0x1f, 0xff, 0xff, 0xff), .execute = scsi_block_read},
    {SCSI_WRITE_6, .cdb_bytes = 6, .flags = W | M | RG, .usage = MAP6(0x1f, 0xff, 0xff, 0xff), .execute = scsi_block_write},
    {SCSI_INQUIRY, .cdb_bytes = 6, .flags = A | NU | AN, .usage = MAP6(1, 0xff, 0xff, 0xff), .execute = scsi_inquiry},
    {SCSI_MODE_SELECT_6, .cdb_bytes = 6, .flags = W, .usage = MAP6(0x11, 0, 0, 0xff), .execute = scsi_mode_select},
    {SCSI_RESERVE_6, .cdb_bytes = 6, .flags = A, .usage = MAP6(0, 0, 0, 0), .execute = scsi_reserve_release},
    {SCSI_RELEASE_6, .cdb_bytes = 6, .flags = A, .usage = MAP6(0, 0, 0, 0), .execute = scsi_reserve_release},
    {SCSI_MODE_SENSE_6, .cdb_bytes = 6, .flags = R, .usage = MAP6(0x08, 0xff, 0xff, 0xff), .execute = scsi_mode_sense},
    {SCSI_START_STOP_UNIT, .cdb_bytes = 6, .flags = R, .usage = MAP6(1, 0, 0x0f, 0xf7), .execute = scsi_start_stop_unit},
    {SCSI_PREVENT_ALLOW, .cdb_bytes = 6, .flags = R, .usage = MAP6(0, 0, 0, 0x03), .execute = scsi_prevent_allow},
    {SCSI_READ_CAPACITY_10, .cdb_bytes = 10, .flags = A | M,
     .usage = {0xff, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01, 0x04}, .execute = scsi_read_capacity_10},
    {SCSI_READ_10, .cdb_bytes = 10, .flags = R | M | RG, .usage = MAP10(0xf8), .execute = scsi_block_read},
    {SCSI_WRITE_10, .cdb_bytes = 10, .flags = W | M | RG, .usage = MAP10(0xf8), .execute = scsi_block_write},
    {SCSI_WRITE_VERIFY_10, .cdb_bytes = 10, .flags = W | M | RG, .usage = MAP10(0xf2), .execute = scsi_block_write_verify},
    {SCSI_VERIFY_10, .cdb_bytes = 10, .flags = R | M | RG, .usage = MAP10(0xf6), .execute = scsi_block_verify},
    {SCSI_PRE_FETCH_10, .cdb_bytes = 10, .flags = R | M | RG, .usage = MAP10(0x02), .execute = scsi_block_pre_fetch},
    {SCSI_SYNCHRONIZE_CACHE_10, .cdb_bytes = 10, .flags = W | M | RG, .usage = MAP10(0x02),
     .execute = scsi_block_synchronize_cache},
    {SCSI_READ_DEFECT_DATA_10, .cdb_bytes = 10, .flags = R | M,
     .usage = {0xff, 0, 0x1f, 0, 0, 0, 0, 0xff, 0xff, 0x04}, .execute = scsi_read_defect_data},
    {SCSI_WRITE_SAME_10, .cdb_bytes = 10, .flags = W | M | RG, .usage = MAP10(0xf8), .execute = scsi_block_write_same},
    {SCSI_UNMAP, .cdb_bytes = 10, .flags = W | M, .usage = {0xff, 0x01, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0x04},
     .execute = scsi_block_unmap},
    {SCSI_MODE_SELECT_10, .cdb_bytes = 10, .flags = W, .usage = {0xff, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04},
     .execute = scsi_mode_select},
    {SCSI_RESERVE_10, .cdb_bytes = 10, .flags = A, .usage = {0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x04},
     .execute = scsi_reserve_release},
    {SCSI_RELEASE_10, .cdb_bytes = 10, .flags = A, .usage = {0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x04},
     .execute = scsi_reserve_release},
    {SCSI_MODE_SENSE_10, .cdb_bytes = 10, .flags = R, .usage = {0xff, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0x04},
     .execute = scsi_mode_sense},
#define PR_IN(sa)                                                                                                       \
    {SERVICE(SCSI_PERSISTENT_RESERVE_IN, sa), .cdb_bytes = 10, .flags = A,                                              \
     .usage = {0xff, sa, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04}, .execute = scsi_persistent_reserve_in}
    PR_IN(0), PR_IN(1), PR_IN(2), PR_IN(3),
#define PR_OUT(sa)                                                                                                      \
    {SERVICE(SCSI_PERSISTENT_RESERVE_OUT, sa), .cdb_bytes = 10, .flags = A,                                             \
     .usage = {0xff, sa, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x04}, .execute = scsi_persistent_reserve_out}
    PR_OUT(0), PR_OUT(1), PR_OUT(2), PR_OUT(3), PR_OUT(4), PR_OUT(5), PR_OUT(6), PR_OUT(7),
    /* The copy manager of the target (target_copy.c) answers these: the entries are for checks and reporting. */
    {SERVICE(SCSI_EXTENDED_COPY, 0), .cdb_bytes = 16, .flags = A,
     .usage = {0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04}, .execute = NULL},
#define COPY_RESULTS(sa)                                                                                                \
    {SERVICE(SCSI_RECEIVE_COPY_RESULTS, sa), .cdb_bytes = 16, .flags = A,                                               \
     .usage = {0xff, sa, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04}, .execute = NULL}
    COPY_RESULTS(0), COPY_RESULTS(3), COPY_RESULTS(4),
    {SCSI_READ_16, .cdb_bytes = 16, .flags = R | M | RG, .usage = MAP16(0xf8), .execute = scsi_block_read},
    {SCSI_COMPARE_AND_WRITE, .cdb_bytes = 16, .flags = W | M | RG | AT,
     .usage = {0xff, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0x1f, 0x04},
     .execute = scsi_block_compare_and_write},
    {SCSI_WRITE_16, .cdb_bytes = 16, .flags = W | M | RG, .usage = MAP16(0xf8), .execute = scsi_block_write},
    {SCSI_ORWRITE_16, .cdb_bytes = 16, .flags = W | M | RG | AT, .usage = MAP16(0xf8), .execute = scsi_block_orwrite},
    {SCSI_WRITE_VERIFY_16, .cdb_bytes = 16, .flags = W | M | RG, .usage = MAP16(0xf2), .execute = scsi_block_write_verify},
    {SCSI_VERIFY_16, .cdb_bytes = 16, .flags = R | M | RG, .usage = MAP16(0xf6), .execute = scsi_block_verify},
    {SCSI_PRE_FETCH_16, .cdb_bytes = 16, .flags = R | M | RG, .usage = MAP16(0x02), .execute = scsi_block_pre_fetch},
    {SCSI_SYNCHRONIZE_CACHE_16, .cdb_bytes = 16, .flags = W | M | RG, .usage = MAP16(0x02),
     .execute = scsi_block_synchronize_cache},
    {SCSI_WRITE_SAME_16, .cdb_bytes = 16, .flags = W | M | RG, .usage = MAP16(0xf9), .execute = scsi_block_write_same},
    {SERVICE(SCSI_SERVICE_ACTION_IN_16, SCSI_SA_READ_CAPACITY_16), .cdb_bytes = 16, .flags = A | M,
     .usage = {0xff, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x04},
     .execute = scsi_read_capacity_16},
    {SERVICE(SCSI_SERVICE_ACTION_IN_16, SCSI_SA_GET_LBA_STATUS), .cdb_bytes = 16, .flags = R | M,
     .usage = {0xff, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04},
     .execute = scsi_get_lba_status},
    /* REPORT LUNS is answered by the target (target.c), which knows the map; this entry is for reporting. */
    {SCSI_REPORT_LUNS, .cdb_bytes = 12, .flags = A | NU | AN,
     .usage = {0xff, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04}, .execute = NULL},
    {SERVICE(SCSI_MAINTENANCE_IN, SCSI_SA_REPORT_TARGET_PORT_GROUPS), .cdb_bytes = 12, .flags = A | AN,
     .usage = {0xff, 0xea, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04}, .execute = scsi_report_target_port_groups},
    {SERVICE(SCSI_MAINTENANCE_IN, SCSI_SA_REPORT_SUPPORTED_OPCODES), .cdb_bytes = 12, .flags = A,
     .usage = {0xff, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04},
     .execute = scsi_report_supported_opcodes},
    {SERVICE(SCSI_MAINTENANCE_IN, SCSI_SA_REPORT_SUPPORTED_TMF), .cdb_bytes = 12, .flags = A,
     .usage = {0xff, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04}, .execute = scsi_report_supported_tmf},
    {SCSI_READ_12, .cdb_bytes = 12, .flags = R | M | RG, .usage = MAP12(0xf8), .execute = scsi_block_read},
    {SCSI_WRITE_12, .cdb_bytes = 12, .flags = W | M | RG, .usage = MAP12(0xf8), .execute = scsi_block_write},
    {SCSI_WRITE_VERIFY_12, .cdb_bytes = 12, .flags = W | M | RG, .usage = MAP12(0xf2), .execute = scsi_block_write_verify},
    {SCSI_VERIFY_12, .cdb_bytes = 12, .flags = R | M | RG, .usage = MAP12(0xf6), .execute = scsi_block_verify},
    {SCSI_READ_DEFECT_DATA_12, .cdb_bytes = 12, .flags = R | M,
     .usage = {0xff, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04}, .execute = scsi_read_defect_data},
};

const struct scsi_command *scsi_command_table(unsigned *ret_count)
{
    *ret_count = ARRAY_SIZE(commands);
    return commands;
}

const struct scsi_command *scsi_command_find(const uint8_t *cdb, bool *ret_known_opcode)
{
    /* First entry of each opcode, found once: the table is constant, so filling it twice gives the same. */
    static uint8_t first[256];
    static bool filled;
    if (!filled) {
        for (unsigned i = ARRAY_SIZE(commands); i-- > 0;)
            first[commands[i].opcode] = (uint8_t)(i + 1);
        filled = true;
    }
    unsigned at = first[cdb[0]];
    *ret_known_opcode = at != 0;
    if (!at)
        return NULL;
    for (const struct scsi_command *c = &commands[at - 1]; c < commands + ARRAY_SIZE(commands); c++) {
        if (c->opcode != cdb[0])
            return NULL;
        if (!c->has_service_action || c->service_action == (cdb[1] & 0x1f))
            return c;
    }
    return NULL;
}

void scsi_cdb_range(const uint8_t *cdb, uint64_t *ret_lba, uint32_t *ret_blocks)
{
    switch (cdb[0] >> 5) { /* group code: SPC-4 §4.2.5.1 */
    case 0:
        *ret_lba = get_be24(cdb + 1) & 0x1fffff;
        *ret_blocks = cdb[4] ? cdb[4] : 256; /* SBC-3 §5.10: 0 is 256 */
        break;
    case 1:
    case 2:
        *ret_lba = get_be32(cdb + 2);
        *ret_blocks = get_be16(cdb + 7);
        break;
    case 5:
        *ret_lba = get_be32(cdb + 2);
        *ret_blocks = get_be32(cdb + 6);
        break;
    default:
        *ret_lba = get_be64(cdb + 2);
        *ret_blocks = cdb[0] == SCSI_COMPARE_AND_WRITE ? cdb[13] : get_be32(cdb + 10);
        break;
    }
}

/* Length of the data-out of VERIFY by BYTCHK, SBC-3 §5.32, table 109. */
static uint64_t verify_blocks(const uint8_t *cdb, uint32_t blocks)
{
    switch (cdb[1] >> 1 & 3) {
    case 1:
        return blocks;
    case 3:
        return blocks ? 1 : 0;
    default:
        return 0;
    }
}

enum scsi_direction scsi_cdb_data(const uint8_t *cdb, uint32_t block_bytes, uint64_t *ret_bytes)
{
    uint64_t lba;
    uint32_t blocks = 0;
    enum scsi_direction direction = SCSI_DATA_IN;
    uint64_t bytes = 0;

    scsi_cdb_range(cdb, &lba, &blocks);
    switch (cdb[0]) {
    case SCSI_READ_6:
    case SCSI_READ_10:
    case SCSI_READ_12:
    case SCSI_READ_16:
        bytes = (uint64_t)blocks * block_bytes;
        break;
    case SCSI_WRITE_6:
    case SCSI_WRITE_10:
    case SCSI_WRITE_12:
    case SCSI_WRITE_16:
    case SCSI_WRITE_VERIFY_10:
    case SCSI_WRITE_VERIFY_12:
    case SCSI_WRITE_VERIFY_16:
    case SCSI_ORWRITE_16:
        direction = SCSI_DATA_OUT;
        bytes = (uint64_t)blocks * block_bytes;
        break;
    case SCSI_VERIFY_10:
    case SCSI_VERIFY_12:
    case SCSI_VERIFY_16:
        bytes = verify_blocks(cdb, blocks) * block_bytes;
        direction = SCSI_DATA_OUT;
        break;
    case SCSI_COMPARE_AND_WRITE:
        direction = SCSI_DATA_OUT;
        bytes = 2ull * blocks * block_bytes;
        break;
    case SCSI_WRITE_SAME_10:
        direction = SCSI_DATA_OUT;
        bytes = block_bytes;
        break;
    case SCSI_WRITE_SAME_16:
        direction = SCSI_DATA_OUT;
        bytes = cdb[1] & 1 ? 0 : block_bytes; /* NDOB */
        break;
    case SCSI_UNMAP:
    case SCSI_MODE_SELECT_10:
        direction = SCSI_DATA_OUT;
        bytes = get_be16(cdb + 7);
        break;
    case SCSI_PERSISTENT_RESERVE_OUT:
        direction = SCSI_DATA_OUT;
        bytes = get_be32(cdb + 5);
        break;
    case SCSI_EXTENDED_COPY:
        direction = SCSI_DATA_OUT;
        bytes = get_be32(cdb + 10);
        break;
    case SCSI_MODE_SELECT_6:
        direction = SCSI_DATA_OUT;
        bytes = cdb[4];
        break;
    case SCSI_REQUEST_SENSE:
    case SCSI_MODE_SENSE_6:
        bytes = cdb[4];
        break;
    case SCSI_INQUIRY:
        bytes = get_be16(cdb + 3);
        break;
    case SCSI_READ_CAPACITY_10:
        bytes = 8;
        break;
    case SCSI_READ_DEFECT_DATA_10:
    case SCSI_MODE_SENSE_10:
    case SCSI_PERSISTENT_RESERVE_IN:
        bytes = get_be16(cdb + 7);
        break;
    case SCSI_REPORT_LUNS:
    case SCSI_MAINTENANCE_IN:
    case SCSI_READ_DEFECT_DATA_12:
        bytes = MIN(get_be32(cdb + 6), SCSI_SCRATCH_BYTES);
        break;
    case SCSI_RECEIVE_COPY_RESULTS:
    case SCSI_SERVICE_ACTION_IN_16:
        bytes = MIN(get_be32(cdb + 10), SCSI_SCRATCH_BYTES);
        break;
    default:
        direction = SCSI_DATA_NONE;
        break;
    }
    *ret_bytes = bytes;
    return bytes ? direction : SCSI_DATA_NONE;
}
