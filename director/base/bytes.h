/* Loads and stores of fixed width at any alignment. be: SCSI, iSCSI, network order. le: our own wire and disk formats. */
#ifndef DIRECTOR_BASE_BYTES_H
#define DIRECTOR_BASE_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define BYTES_DEFINE(order, bits)                                                                                 \
    static inline uint##bits##_t get_##order##bits(const void *from)                                              \
    {                                                                                                             \
        uint##bits##_t value;                                                                                     \
        memcpy(&value, from, sizeof(value));                                                                      \
        return order##bits##toh(value);                                                                           \
    }                                                                                                             \
    static inline void put_##order##bits(void *to, uint##bits##_t value)                                          \
    {                                                                                                             \
        value = hto##order##bits(value);                                                                          \
        memcpy(to, &value, sizeof(value));                                                                        \
    }
BYTES_DEFINE(be, 16)
BYTES_DEFINE(be, 32)
BYTES_DEFINE(be, 64)
BYTES_DEFINE(le, 16)
BYTES_DEFINE(le, 32)
BYTES_DEFINE(le, 64)

static inline uint32_t get_be24(const void *from)
{
    const uint8_t *p = from;
    return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
}

static inline void put_be24(void *to, uint32_t value)
{
    uint8_t *p = to;
    p[0] = (uint8_t)(value >> 16);
    p[1] = (uint8_t)(value >> 8);
    p[2] = (uint8_t)value;
}

#endif
