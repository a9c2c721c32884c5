/* Sub-keys of the cluster key: HKDF-SHA256 (RFC 5869). One label for each use, so that no two uses share key material. */
#ifndef DIRECTOR_AGENT_IO_KEY_DERIVE_H
#define DIRECTOR_AGENT_IO_KEY_DERIVE_H

#include "director/base/common.h"

#define KEY_DERIVE_MAX_BYTES (255 * 32) /* RFC 5869 §2.3 */

/* Derive size bytes into ret_out from key (input keying material), salt (may be NULL with size 0) and label (the
 * "info" of RFC 5869). The key must be random, never a passphrase. 0, -EINVAL (empty key, size 0 or too large) or -EIO. */
MUST_CHECK int key_derive(const void *key, size_t key_size, const void *salt, size_t salt_size, const char *label,
                          void *ret_out, size_t size);

#endif
