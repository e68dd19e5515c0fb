/* Which builds of the kernels there are, and which of them this CPU runs.
 * The compiler's own CPU check asks the operating system too whether it saves the wide registers; of AMX it knows nothing.
 */
#define _GNU_SOURCE
#include "build.h"
#ifdef FR_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* The tables of one build: setup.py compiles rnn.c, tree.c, optim.c and loss.c for it, and names them so. */
#define DECLARE(build)                               \
    extern const fr_sequence_kernels fr_rnn_##build; \
    extern const fr_tree_kernels fr_tree_##build;    \
    extern const fr_update_kernels fr_optim_##build; \
    extern const fr_loss_kernels fr_loss_##build;
#define TABLES(build, words_table) \
    {.sequence = &fr_rnn_##build,  \
     .tree = &fr_tree_##build,     \
     .update = &fr_optim_##build,  \
     .loss = &fr_loss_##build,     \
     .words = words_table}
#define TABLES_OF(isa) TABLES(isa##_float, &fr_words_##isa), TABLES(isa##_double, 0)

DECLARE(baseline_float)
DECLARE(baseline_double)
extern const fr_words_kernels fr_words_baseline;
#ifdef FR_X86
DECLARE(avx2_float)
DECLARE(avx2_double)
DECLARE(avx512_float)
DECLARE(avx512_double)
extern const fr_words_kernels fr_words_avx2, fr_words_avx512;
#endif

extern const fr_sequence_kernels fr_rnn_int8_baseline;
#ifdef FR_X86
extern const fr_sequence_kernels fr_rnn_int8_avx2, fr_rnn_int8_avx512, fr_rnn_int8_vnni;
#endif

extern const fr_sequence_kernels fr_rnn_emulated_high, fr_rnn_emulated_medium;
#ifdef FR_AMX
extern const fr_sequence_kernels fr_rnn_amx_high, fr_rnn_amx_medium;
#endif

static int always(void) { return 1; }
#ifdef FR_X86
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

static const struct {
    const char *name;
    int (*supported)(void);
    fr_build float32, float64;
    const fr_sequence_kernels *int8;
} builds[] = {
    {"baseline", always, TABLES_OF(baseline), &fr_rnn_int8_baseline},
#ifdef FR_X86
    {"avx2", has_avx2, TABLES_OF(avx2), &fr_rnn_int8_avx2},
    {"avx512", has_avx512, TABLES_OF(avx512), &fr_rnn_int8_avx512},
#endif
};

int fr_isa_count(void) { return sizeof builds / sizeof *builds; }
const char *fr_isa_name(int index) { return builds[index].name; }
int fr_isa_supported(int index) { return builds[index].supported(); }

const fr_build *fr_build_for(int index, int itemsize) {
    return itemsize == 4 ? &builds[index].float32 : &builds[index].float64;
}

const fr_sequence_kernels *fr_int8_kernels(int index, int without_vnni) {
#ifdef FR_X86
    if (builds[index].int8 == &fr_rnn_int8_avx512 && !without_vnni && __builtin_cpu_supports("avx512vnni"))
        return &fr_rnn_int8_vnni;
#endif
    return (void)without_vnni, builds[index].int8;
}

/* ---- AMX ---- */

#ifdef FR_AMX

static int cpu_has_amx(void) {
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & AMX_BF16) && (d & AMX_TILE);
}

/* Whether the system saves tiles (XCR0 bits 17 and 18); may only be asked where it saves wide registers at all. */
static int system_saves_tiles(void) {
    const unsigned tiles = 3 << 17;
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & tiles) == tiles;
}

/* Linux gives tiles' 8 KB of state to processes that ask for them, with all their threads and forked children. */
static int system_permits_tiles(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

static const char *look_for_amx(void) {
    if (!cpu_has_amx()) return "this CPU has no AMX";
    if (!system_saves_tiles()) return "the operating system does not support AMX";
    return system_permits_tiles() ? 0 : "the operating system refuses AMX to this process";
}

const char *fr_amx_missing(void) { /* every call asks: virtual machines take microseconds for each cpuid */
    static const char *missing;
    static int known;
    if (!__atomic_load_n(&known, __ATOMIC_ACQUIRE)) {
        missing = look_for_amx();
        __atomic_store_n(&known, 1, __ATOMIC_RELEASE);
    }
    return missing;
}

#else
const char *fr_amx_missing(void) { return "this build of fastrnn has no AMX kernels"; }
#endif

const fr_sequence_kernels *fr_amx_kernels(int terms, int emulated) {
    if (emulated) return terms == 2 ? &fr_rnn_emulated_high : &fr_rnn_emulated_medium;
#ifdef FR_AMX
    if (!fr_amx_missing()) return terms == 2 ? &fr_rnn_amx_high : &fr_rnn_amx_medium;
#endif
    return 0;
}
