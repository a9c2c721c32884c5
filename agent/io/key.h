/* The cluster key: 32 random bytes that make a node belong. The file holds 64 hex digits and a newline, mode 0600.
 * The key itself is never used on a wire; every use has its own key, derived by HKDF-SHA256 (RFC 5869) under its own
 * label, so that no use weakens another. Any thread. */
#ifndef DIRECTOR_AGENT_IO_KEY_H
#define DIRECTOR_AGENT_IO_KEY_H

#include "director/base/error.h"
#include "director/base/uuid.h"

#define CLUSTER_KEY_BYTES      32u
#define CLUSTER_KEY_FILE_BYTES (2u * CLUSTER_KEY_BYTES + 1u)
#define KEY_PSK_BYTES          32u
#define KEY_COROSYNC_BYTES     256u
#define KEY_TAG_TEXT_SIZE      33u /* 16 bytes as hex, with the closing NUL */

struct cluster_key {
    uint8_t bytes[CLUSTER_KEY_BYTES];
};

/* Make a new key file, mode 0600, durable before return. Never replaces one: -EEXIST. Words name the path. */
MUST_CHECK int key_generate(const char *path, struct error *error);
/* Read a key file. -ENOENT, -EPERM (group or others may read or write it, or it is not root's or ours), -EINVAL (not 64
 * hex digits), or what open and read gave. Words name the path and the way out. */
MUST_CHECK int key_read(const char *path, struct cluster_key *ret_key, struct error *error);
/* HKDF-SHA256 with the label and size_context bytes of context as info. -EINVAL when size is beyond 8160 bytes. */
MUST_CHECK int key_derive(const struct cluster_key *key, const char *label, const void *context, size_t context_bytes,
                          void *to, size_t size);
/* What nodes of one key show in discovery to recognise each other: text, reveals nothing of the key. */
MUST_CHECK int key_discovery_tag(const struct cluster_key *key, char ret_tag[static KEY_TAG_TEXT_SIZE]);
/* The external PSK of the peer links (TLS 1.3, RFC 8446 §4.2.11, RFC 9257). */
MUST_CHECK int key_peer_psk(const struct cluster_key *key, uint8_t ret_psk[static KEY_PSK_BYTES]);
/* corosync's key file of one cluster. */
MUST_CHECK int key_corosync(const struct cluster_key *key, const struct uuid *cluster,
                            uint8_t ret_bytes[static KEY_COROSYNC_BYTES]);
/* Overwrite the key in memory. */
void key_wipe(struct cluster_key *key);

#endif
