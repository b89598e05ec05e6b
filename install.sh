#!/bin/sh
# Installs the locked requirements into an environment: install.sh UV PYTHON REQUIREMENTS TORCH [uv's options]
# TORCH is the kind of PyTorch:
#   cuda     as the package index serves it
#   no-gpu   the same without what it starts without: Triton, cuSOLVER and cuDNN's ready-made kernels
#   cpu      without CUDA's libraries, from TORCH_INDEX
# Each package must have one of the hashes in the requirements. PyTorch's wheels for CPUs are other files than the lock
# names: for torch and torchvision alone, TORCH=cpu trusts TORCH_INDEX.
set -eu
uv=$1 python=$2 requirements=$3 torch=$4
shift 4

failed() {
    echo "The installation failed; the reason is above. $1" >&2
    exit 1
}

# The requirements, a line a package.
lines() {
    sed -e ':join' -e '/\\$/{N;s/\\\n *//;b join' -e '}' "$requirements"
}

# Each package of the given files that has a hash.
install() {
    "$uv" pip install "$@" --no-deps --require-hashes --python "$python" ||
        failed "It needs a network, and some GB of disk."
}

case $torch in
cuda)
    install "$@" -r "$requirements"
    ;;
no-gpu)
    left_out='^(triton|cuda-bindings|cuda-pathfinder|nvidia-cusolver|nvidia-cudnn-cu13)=='
    lines | grep -vE "$left_out" | install "$@" -r - -r "$(dirname "$0")/requirements-no-gpu.txt"
    # PyTorch is linked with cuDNN, whose small package has the same library elsewhere.
    ln -sfn cudnn_jit "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia/cudnn"
    ;;
cpu)
    torch_only='^(torch|torchvision)=='
    # What PyTorch's CUDA build brings along; nvidia-ml-py is none of it.
    cuda_only='^(torch|torchvision|triton|cuda-[a-z]+|nvidia-(cu|nccl|nvjitlink|nvshmem|nvtx)[a-z0-9-]*)=='
    lines | grep -E "$torch_only" | sed 's/ --hash=[^ ]*//g' |
        "$uv" pip install "$@" --no-deps --python "$python" --index-url "$TORCH_INDEX" -r - ||
        failed "PyTorch's wheels for CPUs come from $TORCH_INDEX; TORCH_INDEX names another place."
    lines | grep -vE "$cuda_only" | install "$@" -r -
    ;;
*)
    echo "TORCH is cuda, no-gpu or cpu, not $torch." >&2
    exit 1
    ;;
esac
