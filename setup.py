"""Builds the extension module; everything else about the project is in pyproject.toml.

kernels.c is compiled once per instruction set and dtype, with the flags below, and linked into one module that picks at
import. Objects are compiled in parallel. No -march=native and no -ffast-math: the wheel runs on every x86-64, and
denormals and NaN stay what they are.
"""

import glob
import os
import platform
from concurrent.futures import ThreadPoolExecutor

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

X86 = platform.machine().lower() in ("x86_64", "amd64")
ISAS = {"baseline": []}
if X86:
    ISAS["avx2"] = ["-mavx2", "-mfma"]
    ISAS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
FLAGS = ["-O3", "-g0", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra"]
DTYPES = {"float": [], "double": [("FR_DOUBLE", None)]}


class BuildKernels(build_ext):
    """Compile the plain C files, each with its own flags, before the extension that links them."""

    def build_extension(self, extension):
        jobs = [(f"src/{name}.c", name, FLAGS, [("FR_X86", None)] if X86 else []) for name in ("pool", "work", "workspace", "dispatch")]
        jobs += [("src/kernels.c", f"{isa}_{dtype}", FLAGS + flags, [("FR_BUILD", f"fr_{isa}_{dtype}"), *macros])
                 for isa, flags in ISAS.items() for dtype, macros in DTYPES.items()]

        def compile_one(job):
            source, name, flags, macros = job
            return self.compiler.compile([source], output_dir=os.path.join(self.build_temp, name), macros=macros,
                                         extra_postargs=flags, depends=glob.glob("src/*.h"))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            extension.extra_objects = [path for paths in pool.map(compile_one, jobs) for path in paths]
        super().build_extension(extension)


native = Extension(
    "fastrnn._native", ["src/_native.pyx"], include_dirs=["src", numpy.get_include()], extra_link_args=["-pthread"],
    extra_compile_args=["-O2", "-g0"], depends=["setup.py", *(path for path in glob.glob("src/*") if not path.endswith("_native.c"))],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
)
directives = {"language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True, "initializedcheck": False}
setup(ext_modules=cythonize([native], include_path=["src"], compiler_directives=directives),
      cmdclass={"build_ext": BuildKernels})
