#include "agent/io/key_derive.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <string.h>

int key_derive(const void *key, size_t key_size, const void *salt, size_t salt_size, const char *label, void *ret_out,
               size_t size)
{
    int result = -EIO;
    if (!key_size || !size || size > KEY_DERIVE_MAX_BYTES)
        return -EINVAL;
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    if (!context)
        goto out;
    OSSL_PARAM parameters[5], *p = parameters;
    *p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0);
    *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)key, key_size);
    if (salt_size)
        *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_size);
    *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)label, strlen(label));
    *p = OSSL_PARAM_construct_end();
    if (EVP_KDF_derive(context, ret_out, size, parameters) == 1)
        result = 0;
out:
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
    return result;
}
