/* CRC32C (Castagnoli, RFC 7143 §13.1 and RFC 3720 appendix B.4 test vectors). */
#ifndef DIRECTOR_BASE_CRC32C_H
#define DIRECTOR_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* CRC of size bytes. To continue over further bytes pass the previous result as seed; start with 0. */
uint32_t crc32c(uint32_t seed, const void *data, size_t size);

#endif
