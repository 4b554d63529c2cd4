#!/usr/bin/env bash
# Compile whisper.cpp for any Xeon with AVX2 into one directory.
#
#   build.sh SOURCE_DIR OUT_DIR [-DOPTION=VALUE ...]
#
# SOURCE_DIR is a whisper.cpp tree; it stays as it is, kernels/ and its hooks go onto a copy.
# OUT_DIR receives the libraries (each under every name that something asks for), cpu/<variant>/libggml-cpu.so.0 for
# processors that can do more, whisper-cli, whisper-quantize, abi.json, version.txt, cmake_flags.txt, variants.json,
# kernels.json, hooks.txt and toolchain.json. Options after OUT_DIR go to CMake after the ones below, so they win.
# Needs cmake, make, patch, a C and C++ compiler; uses ccache when it is there.
# The builder image runs this script; it runs as well on a plain Debian host:
#   apt-get install build-essential cmake ccache patch
# Environment: BUILD_DIR (scratch, kept; default a temporary directory), JOBS (default: the number of processors), KERNELS
# (names of kernels/kernels.txt, default all; KERNELS= builds whisper.cpp as it is), BLAS (default none; openblas makes
# libggml-blas.so.0 with Debian's OpenBLAS in it: apt-get install libopenblas-openmp-dev).
set -euo pipefail

if [ "$#" -lt 2 ]; then
    echo "usage: build.sh SOURCE_DIR OUT_DIR [-DOPTION=VALUE ...]" >&2
    exit 2
fi
source_dir=$(readlink -f -- "$1")
mkdir -p -- "$2"
out_dir=$(readlink -f -- "$2")
shift 2
extra=("$@")
if [ ! -f "$source_dir/include/whisper.h" ]; then
    echo "build.sh: $source_dir is not a whisper.cpp tree (no include/whisper.h)" >&2
    exit 2
fi
for tool in cmake make cc c++ patch; do
    if ! command -v "$tool" >/dev/null; then
        echo "build.sh: $tool is missing: apt-get install build-essential cmake patch" >&2
        exit 2
    fi
done

if [ -n "${BUILD_DIR:-}" ]; then
    mkdir -p -- "$BUILD_DIR"
    build_dir=$(readlink -f -- "$BUILD_DIR")
else
    build_dir=$(mktemp -d)
    trap 'rm -rf -- "$build_dir"' EXIT
fi

here=$(dirname -- "$(readlink -f -- "$0")")
kernels_dir=$here/kernels # in a build context
if [ ! -d "$kernels_dir" ]; then
    kernels_dir=$(readlink -f -- "$here/../../kernels") # in the repository
fi
known=()
declare -A needs=()
if [ -n "${KERNELS-all}" ]; then # the build context of a build without kernels has none of their files
    while read -r kernel required _; do
        known+=("$kernel")
        needs[$kernel]=${required//,/ }
    done < <(grep '^[a-z]' "$kernels_dir/kernels.txt")
fi
read -ra kernels <<<"${KERNELS-${known[*]}}"
for kernel in "${kernels[@]}"; do
    if [ -z "${needs[$kernel]:-}" ]; then
        echo "build.sh: no kernel is called $kernel: kernels/kernels.txt has ${known[*]}" >&2
        exit 2
    fi
    for required in ${needs[$kernel]#-}; do
        if [[ " ${kernels[*]} " != *" $required "* ]]; then
            echo "build.sh: kernel $kernel builds on $required, which is not chosen: add it, or leave $kernel out" >&2
            exit 2
        fi
    done
done
kernel_options=()
kernel_entries=()
: >"$out_dir/hooks.txt"
if [ "${#kernels[@]}" -gt 0 ]; then
    rm -rf -- "$build_dir/source"
    cp -R -- "$source_dir" "$build_dir/source"
    source_dir=$build_dir/source
    cp -R -- "$kernels_dir" "$source_dir/ggml/src/ggml-cpu/xeon"
    # No fuzz: a hook that fits only nearly may land in another place.
    for hook in "$kernels_dir"/hooks/*.patch; do
        if ! patch --directory="$source_dir" --strip=1 --fuzz=0 --forward --batch --silent <"$hook"; then
            echo "build.sh: kernels/hooks/$(basename -- "$hook") does not fit this whisper.cpp; without kernels (KERNELS=) it is built as it is" >&2
            exit 1
        fi
        basename -- "$hook" >>"$out_dir/hooks.txt"
    done
    # As whisper_build.source_tree digests a tree.
    digest=$(cd -- "$kernels_dir" && find . -type f ! -name README.md -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum)
    for kernel in "${known[@]}"; do
        state=OFF
        if [[ " ${kernels[*]} " == *" $kernel "* ]]; then
            state=ON
            kernel_entries+=("{\"name\": \"$kernel\", \"sha256\": \"${digest%% *}\"}")
        fi
        kernel_options+=("-DGGML_XEON_$(tr a-z- A-Z_ <<<"$kernel")=$state")
    done
fi

# -march for everything and not only for libggml-cpu: libggml-base converts half floats too, without F16C far slower.
flags=(
    -DCMAKE_BUILD_TYPE=Release
    -DBUILD_SHARED_LIBS=ON
    -DGGML_NATIVE=OFF
    -DGGML_AVX=ON
    -DGGML_AVX2=ON
    -DGGML_BMI2=ON
    -DGGML_F16C=ON
    -DGGML_FMA=ON
    -DCMAKE_C_FLAGS=-march=x86-64-v3
    -DCMAKE_CXX_FLAGS=-march=x86-64-v3
    -DWHISPER_BUILD_SERVER=OFF
    -DWHISPER_BUILD_TESTS=OFF
)
# The libraries read what strangers send. What a linker resolves is read-only before the first byte is read, a function
# whose arrays were overrun ends the process, and so does a copy that is larger than its target.
linker_flags=-Wl,--enable-new-dtags,-z,relro,-z,now,-z,noexecstack
hardening="-fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"
# GCC 12 takes the undefined vectors of its own AVX-512 headers for mistakes, in megabytes of warnings.
warnings="-Wno-uninitialized -Wno-maybe-uninitialized"
shared_linker_flags=$linker_flags
blas_flags=()
case ${BLAS:-none} in
    none) ;;
    openblas)
        if ! archive=$(dpkg -L libopenblas-openmp-dev 2>/dev/null | grep '/libopenblas\.a$'); then
            echo "build.sh: OpenBLAS is missing: apt-get install libopenblas-openmp-dev" >&2
            exit 2
        fi
        flags+=(-DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS)
        # CMake looks for a shared library; this is one that brings the archive and what it needs. The archive's symbols
        # stay inside: a program may have another BLAS.
        mkdir -p -- "$build_dir/openblas"
        echo "INPUT($archive -lgomp -lpthread -lm)" >"$build_dir/openblas/libopenblas.so"
        blas_flags=(
            "-DBLAS_openblas_LIBRARY=$build_dir/openblas/libopenblas.so"
            "-DBLAS_INCLUDE_DIRS=$(dpkg -L libopenblas-openmp-dev | sed -n 's,/cblas\.h$,,p')"
        )
        shared_linker_flags+=,--exclude-libs,libopenblas.a
        dpkg-query --show --showformat='${Version}\n' libopenblas-openmp-dev >"$out_dir/openblas.txt"
        cp /usr/share/doc/libopenblas-openmp-dev/copyright "$out_dir/openblas.LICENSE"
        ;;
    *)
        echo "build.sh: BLAS=$BLAS is not one of none, openblas" >&2
        exit 2
        ;;
esac
# What -march=x86-64-v3 lets the compiler use, and what each of ggml's options adds to it, in the names of /proc/cpuinfo
# (abm is LZCNT).
baseline_cpu_flags=(abm avx avx2 bmi1 bmi2 f16c fma movbe popcnt sse4_2 ssse3)
declare -A option_cpu_flags=(
    [AVX512]="avx512f avx512bw avx512cd avx512dq avx512vl"
    [AVX512_VBMI]=avx512vbmi
    [AVX512_VNNI]=avx512_vnni
    [AVX512_BF16]=avx512_bf16
    [AMX_TILE]=amx_tile
    [AMX_INT8]=amx_int8
    [AMX_BF16]=amx_bf16
)
# The CPU libraries in the order in which a loader should prefer them, each with its options: whatever another one has
# all options of comes before it. Of cooperlake and icelake neither does. A Xeon can run only one of the two, an EPYC
# since Zen 4 both: bfloat16 goes first, since ggml has kernels for it and none for VBMI.
variants=(
    "sapphirerapids AVX512 AVX512_VBMI AVX512_VNNI AVX512_BF16 AMX_TILE AMX_INT8 AMX_BF16"
    "cooperlake AVX512 AVX512_VNNI AVX512_BF16"
    "icelake AVX512 AVX512_VBMI AVX512_VNNI"
    "cascadelake AVX512 AVX512_VNNI"
    "skylakex AVX512"
    "baseline"
)
# Where the package will lie is not known, so every part finds its neighbours beside itself; and no path of the machine
# that built it gets into the result.
# (GCC takes the last one that fits, and the copy of the source lies in the build directory.)
prefix_map="-ffile-prefix-map=$build_dir=build -ffile-prefix-map=$source_dir=."
# shellcheck disable=SC2054  # the commas belong to the linker's options
placement=(
    -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON
    "-DCMAKE_EXE_LINKER_FLAGS=$linker_flags"
    "-DCMAKE_SHARED_LINKER_FLAGS=$shared_linker_flags"
    "${blas_flags[@]}"
    "-DCMAKE_C_FLAGS_RELEASE=-O3 -DNDEBUG $hardening $warnings $prefix_map"
    "-DCMAKE_CXX_FLAGS_RELEASE=-O3 -DNDEBUG $hardening $warnings $prefix_map"
    "-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$build_dir/bin"
)
# whisper.cpp asks git for a commit: a repository that happens to surround the source must not answer.
export GIT_DIR=/nonexistent

configure() { # configure RUNPATH [GGML option ...]
    local runpath=$1 option options=()
    shift
    for option in "${!option_cpu_flags[@]}"; do
        if [[ " $* " == *" $option "* ]]; then
            options+=("-DGGML_$option=ON")
        else
            options+=("-DGGML_$option=OFF")
        fi
    done
    cmake -S "$source_dir" -B "$build_dir" -G "Unix Makefiles" "${flags[@]}" "${placement[@]}" \
        "-DCMAKE_INSTALL_RPATH=$runpath" "${options[@]}" "${kernel_options[@]}" "${extra[@]}"
}
compile() { # compile TARGET ...
    cmake --build "$build_dir" --parallel "${JOBS:-$(nproc)}" --target "$@"
}
place() { # place LIBRARY DIRECTORY; regular files only, since object stores have no links
    install -D -m 755 -- "$(readlink -f -- "$build_dir/bin/$1")" "$2/$1"
}
json_list() { # json_list WORD ...
    local words
    words=$(printf '"%s", ' "$@")
    printf '[%s]' "${words%, }"
}
write_list() { # write_list FILE JSON_OBJECT ...
    local IFS=,
    printf '[%s]\n' "${*:2}" >"$1"
}

configure "\$ORIGIN"
compile whisper whisper-cli whisper-quantize
# A library is there once for each name that something asks for.
libraries=(libwhisper.so libwhisper.so.1 libggml.so.0 libggml-base.so.0 libggml-cpu.so.0)
if [ "${BLAS:-none}" = openblas ]; then
    libraries+=(libggml-blas.so.0)
fi
for library in "${libraries[@]}"; do
    place "$library" "$out_dir"
done
install -m 755 -- "$build_dir/bin/whisper-cli" "$build_dir/bin/whisper-quantize" "$out_dir/"

cc -std=c11 -Wall -Werror -I "$source_dir/include" -I "$source_dir/ggml/include" \
    "$here/abi_probe.c" -o "$build_dir/abi_probe"
"$build_dir/abi_probe" >"$out_dir/abi.json"
sed -n 's/^project("whisper.cpp" VERSION \([0-9.]*\)).*/\1/p' "$source_dir/CMakeLists.txt" >"$out_dir/version.txt"
printf '%s\n' "${flags[@]}" "${extra[@]}" >"$out_dir/cmake_flags.txt"
write_list "$out_dir/kernels.json" "${kernel_entries[@]}"
# The Debian packages whose versions decide the bytes; none where the compiler is not Debian's.
gcc=$(c++ -dumpversion)
packages=("cpp-$gcc" "gcc-$gcc" "g++-$gcc" "libgcc-$gcc-dev" "libstdc++-$gcc-dev" libgomp1 libc6-dev binutils cmake)
if [ "${BLAS:-none}" = openblas ]; then
    packages+=(libopenblas-openmp-dev)
fi
package_entries=()
while read -r name version; do
    package_entries+=("{\"name\": \"$name\", \"version\": \"$version\"}")
done < <(dpkg-query --show --showformat='${Package} ${Version}\n' "${packages[@]}" | LC_ALL=C sort)
write_list "$out_dir/toolchain.json" "${package_entries[@]}"

# The options of a variant touch ggml-cpu alone, so that is all that is compiled again.
variant_entries=()
for variant in "${variants[@]}"; do
    read -ra options <<<"$variant"
    name=${options[0]}
    options=("${options[@]:1}")
    path=libggml-cpu.so.0
    if [ "$name" != baseline ]; then
        path=cpu/$name/$path
        configure "\$ORIGIN/../.." "${options[@]}"
        compile ggml-cpu
        place libggml-cpu.so.0 "$out_dir/cpu/$name"
    fi
    cpu_flags=("${baseline_cpu_flags[@]}")
    for option in "${options[@]}"; do
        read -ra more <<<"${option_cpu_flags[$option]}"
        cpu_flags+=("${more[@]}")
    done
    variant_entries+=("{\"name\": \"$name\", \"path\": \"$path\", \"cpu_flags\": $(json_list "${cpu_flags[@]}")}")
done
write_list "$out_dir/variants.json" "${variant_entries[@]}"
