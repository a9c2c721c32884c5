/* Feeds each file of the folders and files named to the fuzz function, so that what a fuzzer once found stays found. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned inputs;

static int feed(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 1;
    }
    enum { LONGEST = 1 << 20 };
    uint8_t *buffer = malloc(LONGEST);
    size_t size = fread(buffer, 1, LONGEST, file);
    uint8_t *data = malloc(size ? size : 1); /* of its own length, so that a sanitizer sees reads beyond it */
    memcpy(data, buffer, size);
    (void)LLVMFuzzerTestOneInput(data, size);
    inputs++;
    free(data);
    free(buffer);
    fclose(file);
    return 0;
}

int main(int argc, char **argv)
{
    int status = 0;
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        if (!folder) {
            status |= feed(argv[i]);
            continue;
        }
        for (struct dirent *entry; (entry = readdir(folder));) {
            char path[4096];
            if (entry->d_name[0] == '.')
                continue;
            (void)snprintf(path, sizeof(path), "%s/%s", argv[i], entry->d_name);
            status |= feed(path);
        }
        closedir(folder);
    }
    printf("%u inputs\n", inputs);
    return status || inputs == 0;
}
