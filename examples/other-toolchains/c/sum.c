/* A native function in C, without any library: the sum of a list of whole numbers. What is exported here
   is what the canonical ABI asks of a core module for `call: func(string) -> result<string, string>`. */

#include <stddef.h>
#include <stdint.h>

/* Where the linker ends the module's own data. */
extern uint8_t __heap_base;
static uint8_t *next = &__heap_base;

static const size_t PAGE = 65536;

/* Nothing is ever freed: each call has a fresh instance. */
static void *allocate(size_t align, size_t size) {
    uintptr_t at = ((uintptr_t)next + align - 1) & ~(uintptr_t)(align - 1), end = at + size;
    size_t have = __builtin_wasm_memory_size(0) * PAGE;
    if (end < at) __builtin_trap();
    if (end > have && __builtin_wasm_memory_grow(0, (end - have + PAGE - 1) / PAGE) == SIZE_MAX) __builtin_trap();
    next = (uint8_t *)end;
    return (void *)at;
}

/* The host asks here for room for the input. */
__attribute__((export_name("cabi_realloc"))) void *reallocate(void *old, size_t had, size_t align, size_t size) {
    uint8_t *fresh = allocate(align, size);
    for (size_t i = 0; i < had && i < size; i++) fresh[i] = ((uint8_t *)old)[i];
    return fresh;
}

/* `result<string, string>` as it lies in memory. */
struct answer {
    uint8_t is_error;
    const char *text;
    size_t length;
};

static struct answer *error(const char *json) {
    struct answer *answer = allocate(_Alignof(struct answer), sizeof *answer);
    *answer = (struct answer){.is_error = 1, .text = json};
    while (json[answer->length] != 0) answer->length++;
    return answer;
}

static struct answer *number(int64_t value) {
    enum { DIGITS = 20 };
    char *end = (char *)allocate(1, DIGITS) + DIGITS, *at = end;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do *--at = (char)('0' + rest % 10);
    while ((rest /= 10) != 0);
    if (value < 0) *--at = '-';
    struct answer *answer = allocate(_Alignof(struct answer), sizeof *answer);
    *answer = (struct answer){.text = at, .length = (size_t)(end - at)};
    return answer;
}

static const char *at, *end;

static char peek(void) {
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) at++;
    return at < end ? *at : 0;
}

/* Reads one number of at most 15 digits, which every JSON reader holds exactly; 0 where there is none. */
static int read(int64_t *value) {
    int negative = peek() == '-', digits = 0;
    at += negative;
    for (*value = 0; at < end && *at >= '0' && *at <= '9'; at++, digits++) {
        if (digits == 15) return 0;
        *value = *value * 10 + (*at - '0');
    }
    if (negative) *value = -*value;
    return digits > 0;
}

__attribute__((export_name("call"))) struct answer *call(const char *input, size_t length) {
    int64_t sum = 0, value;
    at = input;
    end = input + length;
    if (peek() != '[') return error("\"give a list of whole numbers\"");
    at++;
    if (peek() == ']') return number(0);
    for (;;) {
        if (!read(&value)) return error("\"give a list of whole numbers of at most 15 digits\"");
        if (__builtin_add_overflow(sum, value, &sum)) return error("\"the sum has more than 64 bits\"");
        char after = peek();
        at++;
        if (after == ']') return number(sum);
        if (after != ',') return error("\"give a list of whole numbers\"");
    }
}
