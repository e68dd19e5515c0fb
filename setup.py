"""Builds the compiled modules; everything else about the project is in pyproject.toml.

src/kernels/kernels.c is compiled once per instruction set and dtype, with the flags below, and linked into `_runtime`,
which picks at import; twice each for AMX tiles and for their emulation, in the two precisions; and once per instruction
set for bfloat16 weights, for int8 weights, and for these with VNNI. The other modules
are small and reach the C side through that one. All are compiled in parallel, and again only where sources are newer.
No -march=native and no -ffast-math: the wheel runs on every x86-64, and denormals and NaN stay what they are.
"""

import glob
import os
import platform
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError
from setuptools.modified import newer_group

BASELINE = os.environ.get("FASTRNN_BUILDS", "all") == "baseline"  # for developers: not the faster instruction sets
X86 = platform.machine().lower() in ("x86_64", "amd64") and not BASELINE
ISAS = {"baseline": []}
if X86:
    ISAS["avx2"] = ["-mavx2", "-mfma"]
    ISAS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
FLAGS = ["-O3", "-g0", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra"]
# For developers, by environment variables; a build of another kind needs `build_ext --force`.
DEBUG = os.environ.get("FASTRNN_DEBUG", "0") != "0"  # bounds and wraparound checks in Cython
SANITIZE = os.environ.get("FASTRNN_SANITIZE", "")  # address, undefined or thread, or several with commas
SANITIZERS = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g", "-O1"] if SANITIZE else []
FLAGS += SANITIZERS
DTYPES = {"float": [], "double": [("FR_DOUBLE", None)]}
AMX = ["-mamx-tile", "-mamx-bf16"]
INCLUDES = ["src/include", "src/kernels", "src/runtime", "src/words"]
PACKAGE = "fastrnn._native"
SOURCES = [*glob.glob("src/*/*.[ch]"), "setup.py"]
CONTRACTS = [*glob.glob("src/include/*.h"), *glob.glob("src/runtime/*.h"), *glob.glob("src/words/*.h"), "setup.py"]
TERMS = {"high": "2", "medium": "1"}  # of bfloat16, for one of float32


class BuildKernels(build_ext):
    """Compile the plain C files, each with its own flags, before the extension that links them."""

    def compiles(self, code, flags=(), include_dirs=()):
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "trial.c")
            with open(source, "w") as file:
                file.write(code)
            try:
                self.compiler.compile(
                    [source], output_dir=folder, extra_postargs=list(flags), include_dirs=list(include_dirs)
                )
            except CompileError:
                return False
        return True

    def check_tools(self):
        """End with one line that says what to install, rather than in the middle of a compiler's complaints."""
        if not self.compiles("int x;\n"):
            sys.exit("fastrnn: no C compiler was found; install GCC or Clang, for example: apt install gcc")
        if not self.compiles("#include <Python.h>\n", include_dirs=[sysconfig.get_path("include")]):
            sys.exit("fastrnn: Python's C headers were not found; install them, for example: apt install python3-dev")

    def build_extensions(self):
        self.check_tools()
        self.parallel = self.parallel or os.cpu_count()
        runtime = next(extension for extension in self.extensions if extension.name == f"{PACKAGE}._runtime")
        runtime.extra_objects = self.kernel_objects()
        super().build_extensions()

    def kernel_objects(self):
        # GCC before 11 and Clang before 12 do not know AMX.
        trial = "#include <immintrin.h>\nvoid f(void) { _tile_dpbf16ps(0, 1, 2); }\n"
        amx = X86 and sys.platform == "linux" and self.compiles(trial, AMX)
        macros = [("FR_X86", None)] * X86 + [("FR_AMX", None)] * amx
        plain = ("pool", "pace", "work", "workspace", "checksum", "cpu")
        jobs = [(f"src/runtime/{name}.c", name, FLAGS, macros) for name in plain]
        jobs += [
            ("src/kernels/kernels.c", f"{isa}_{dtype}", FLAGS + flags, [("FR_BUILD", f"{isa}_{dtype}"), *macros])
            for isa, flags in ISAS.items()
            for dtype, macros in DTYPES.items()
        ]
        # A unit of its own: it shares nothing but vectors with the others, and has no float64. Every processor with
        # AVX-512 can fetch a line that it is going to write, which spares a second way to the core that has it.
        jobs += [
            (
                "src/kernels/words.c",
                f"words_{isa}",
                FLAGS + flags + ["-mprfchw"] * (isa == "avx512"),
                [("FR_TABLE", f"fr_words_{isa}"), *macros],
            )
            for isa, flags in ISAS.items()
        ]
        int8 = ISAS | ({"vnni": ISAS["avx512"] + ["-mavx512vnni"]} if X86 else {})
        jobs += [
            ("src/kernels/kernels.c", f"int8_{isa}", FLAGS + flags, [("FR_BUILD", f"int8_{isa}"), ("FR_INT8", None)])
            for isa, flags in int8.items()
        ]
        jobs += [
            ("src/kernels/kernels.c", f"bf16_{isa}", FLAGS + flags, [("FR_BUILD", f"bf16_{isa}"), ("FR_BF16", None)])
            for isa, flags in ISAS.items()
        ]
        tiles = {"emulated": ([*FLAGS, "-Os", "-Wno-psabi"], [("FR_EMULATED", None)])}
        if amx:
            tiles["amx"] = (FLAGS + ISAS["avx512"] + AMX, [])
        jobs += [
            (
                "src/kernels/kernels.c",
                f"{kind}_{precision}",
                flags,
                [("FR_BUILD", f"{kind}_{precision}"), ("FR_AMX_TERMS", terms), *macros],
            )
            for kind, (flags, macros) in tiles.items()
            for precision, terms in TERMS.items()
        ]

        def compile_one(job):
            source, name, flags, macros = job
            folder = os.path.join(self.build_temp, name)
            objects = self.compiler.object_filenames([source], output_dir=folder)
            if not self.force and not newer_group(SOURCES, objects[0]):
                return objects
            return self.compiler.compile(
                [source], output_dir=folder, macros=macros, include_dirs=INCLUDES, extra_postargs=flags
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return [path for paths in pool.map(compile_one, jobs) for path in paths]


def module(name, *sources):
    return Extension(
        f"{PACKAGE}.{name}",
        [f"fastrnn/_native/{name}.pyx", *sources],
        include_dirs=[*INCLUDES, numpy.get_include()],
        extra_link_args=["-pthread", *SANITIZERS],
        extra_compile_args=["-O2", "-g0", *SANITIZERS],
        depends=SOURCES if name == "_runtime" else CONTRACTS,
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    )


topics = sorted(path[:-4] for path in os.listdir("fastrnn/_native") if path.endswith(".pyx") and path != "_words.pyx")
# What of words is no kernel is used by that module alone, so it stands in it.
words = module("_words", "src/words/train.c", "src/words/lexicon.c")
directives = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "cdivision": True,
    "initializedcheck": DEBUG,
}
setup(
    ext_modules=cythonize([*map(module, topics), words], compiler_directives=directives),
    cmdclass={"build_ext": BuildKernels},
)
