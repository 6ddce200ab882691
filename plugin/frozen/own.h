/* What the accelerator takes of the C library's functions on strings, for where those cannot be called yet. Differences are
 * told as 1, in no order. */
#include <stddef.h>
#include <stdint.h>

static size_t own_strlen(const char *text) {
    size_t size = 0;
    while (text[size]) size++;
    return size;
}
static int own_memcmp(const void *one, const void *other, size_t size) {
    for (size_t at = 0; at < size; at++)
        if (((const char *)one)[at] != ((const char *)other)[at]) return 1;
    return 0;
}
static int own_strncmp(const char *one, const char *other, size_t size) {
    for (size_t at = 0; at < size; at++) {
        if (one[at] != other[at]) return 1;
        if (!one[at]) return 0;
    }
    return 0;
}
static size_t own_strcspn(const char *text, char end) {
    size_t size = 0;
    while (text[size] && text[size] != end) size++;
    return size;
}
static const void *own_memchr(const void *from, int sought, size_t size) {
    const unsigned char *each = from;
    for (; size; size--, each++)
        if (*each == sought) return each;
    return NULL;
}
static void own_memcpy(void *to, const void *from, size_t size) {
    for (size_t at = 0; at < size; at++) ((char *)to)[at] = ((const char *)from)[at];
}
static char *own_getenv(char *const *environment, const char *name) {
    size_t size = own_strlen(name);
    for (; *environment; environment++)
        if (!own_strncmp(*environment, name, size) && (*environment)[size] == '=') return *environment + size + 1;
    return NULL;
}

#define strlen own_strlen
#define strcmp(one, other) own_strncmp(one, other, SIZE_MAX)
#define strncmp own_strncmp
#define strcspn(text, ends) own_strcspn(text, *(ends)) /* of one character */
#define memcmp own_memcmp
#define memchr own_memchr
#define memcpy own_memcpy
#define getenv(name) own_getenv(environment, name)
