/* Which builds of the kernels there are, and which of them this CPU runs.
 * The compiler's own CPU check asks the operating system too whether it saves the wide registers.
 */
#include "fastrnn.h"

extern const fr_kernels fr_baseline_float, fr_baseline_double;
#ifdef FR_X86
extern const fr_kernels fr_avx2_float, fr_avx2_double, fr_avx512_float, fr_avx512_double;
#endif

static const struct {
    const char *name;
    const fr_kernels *float32, *float64;
} builds[] = {
    {"baseline", &fr_baseline_float, &fr_baseline_double},
#ifdef FR_X86
    {"avx2", &fr_avx2_float, &fr_avx2_double},
    {"avx512", &fr_avx512_float, &fr_avx512_double},
#endif
};

int fr_isa_count(void) { return sizeof builds / sizeof *builds; }
const char *fr_isa_name(int index) { return builds[index].name; }

int fr_isa_supported(int index) {
#ifdef FR_X86
    __builtin_cpu_init();
    if (index == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (index == 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
#endif
    return index == 0;
}

const fr_kernels *fr_kernels_for(int index, int itemsize) {
    return itemsize == 4 ? builds[index].float32 : builds[index].float64;
}
