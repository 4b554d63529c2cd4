#!/usr/bin/env bash
# Build ggml's CPU backend and a program of this folder with a sanitizer.
#
#   sanitize.sh WHISPER_CPP_DIR BUILD_DIR ADDRESS|THREAD check|states [-DGGML_OPTION=VALUE ...]
#
# The program is BUILD_DIR/check or BUILD_DIR/states; whisper.cpp, which only states has, is looked at by UBSan as well.
# The options name the processor; without any it is this one. Environment: KERNELS, the names of kernels.txt whose options are
# on (default: all).
set -euo pipefail

kernels=$(dirname -- "$0")
source_dir=$1 build_dir=$2 sanitizer=$3 program=$4
shift 4
processor=(-DGGML_NATIVE=ON)
if [ "$#" -gt 0 ]; then
    processor=(-DGGML_NATIVE=OFF "$@")
fi
options=()
flags=("-fsanitize=${sanitizer,,}")
while read -r kernel _; do
    state=0
    if [[ " ${KERNELS-$kernel} " == *" $kernel "* ]]; then
        state=1
    fi
    options+=("-DGGML_XEON_$(tr a-z- A-Z_ <<<"$kernel")=$state")
done < <(grep '^[a-z]' "$source_dir/ggml/src/ggml-cpu/xeon/kernels.txt")
openmp=ON
if [ "$sanitizer" = THREAD ]; then
    openmp=OFF # it does not know the barriers of libgomp: ggml's own threads instead
fi
sources=("$kernels/$program.cpp")
if [ "$program" = states ]; then
    sources+=("$source_dir/src/whisper.cpp")
    flags+=(-fsanitize=undefined -fno-sanitize-recover=undefined '-DWHISPER_VERSION="sanitized"')
fi
cmake -S "$source_dir" -B "$build_dir" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_SHARED_LIBS=OFF "${processor[@]}" "${options[@]}" \
    "-DGGML_OPENMP=$openmp" "-DGGML_SANITIZE_$sanitizer=ON" -DWHISPER_BUILD_EXAMPLES=OFF -DWHISPER_BUILD_TESTS=OFF >/dev/null
cmake --build "$build_dir" --parallel "$(nproc)" --target ggml >"$build_dir/log" 2>&1
c++ -O1 -g -std=c++17 "${flags[@]}" "${options[@]}" -I "$source_dir/include" -I "$source_dir/ggml/include" "${sources[@]}" \
    "$build_dir"/ggml/src/libggml{,-cpu,-base}.a -lgomp -lpthread -ldl -lm -o "$build_dir/$program"
