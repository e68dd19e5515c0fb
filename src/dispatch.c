/* Which builds of the kernels there are, and which of them this CPU runs.
 * The compiler's own CPU check asks the operating system too whether it saves the wide registers.
 */
#include "fastrnn.h"

extern const fr_kernels fr_baseline_float, fr_baseline_double;
#ifdef FR_X86
extern const fr_kernels fr_avx2_float, fr_avx2_double, fr_avx512_float, fr_avx512_double;
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
    const fr_kernels *float32, *float64;
} builds[] = {
    {"baseline", always, &fr_baseline_float, &fr_baseline_double},
#ifdef FR_X86
    {"avx2", has_avx2, &fr_avx2_float, &fr_avx2_double},
    {"avx512", has_avx512, &fr_avx512_float, &fr_avx512_double},
#endif
};

int fr_isa_count(void) { return sizeof builds / sizeof *builds; }
const char *fr_isa_name(int index) { return builds[index].name; }
int fr_isa_supported(int index) { return builds[index].supported(); }

const fr_kernels *fr_kernels_for(int index, int itemsize) {
    return itemsize == 4 ? builds[index].float32 : builds[index].float64;
}
