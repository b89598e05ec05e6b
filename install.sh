#!/bin/sh
# Installs the locked requirements into an environment: install.sh UV PYTHON REQUIREMENTS TORCH [uv's options]
# TORCH is `cuda`, PyTorch as the package index serves it, or `cpu`, without CUDA's libraries, from TORCH_INDEX.
# Each package must have one of the hashes in the requirements. PyTorch's wheels for CPUs are other files than the lock
# names: for torch and torchvision alone, TORCH=cpu trusts TORCH_INDEX.
set -eu
uv=$1 python=$2 requirements=$3 torch=$4
shift 4

failed() {
    echo "The installation failed; the reason is above. $1" >&2
    exit 1
}

case $torch in
cuda)
    "$uv" pip install "$@" --no-deps --require-hashes --python "$python" -r "$requirements" ||
        failed "It needs a network, and some GB of disk."
    ;;
cpu)
    torch_only='^(torch|torchvision)=='
    # What PyTorch's CUDA build brings along; nvidia-ml-py is none of it.
    cuda_only='^(torch|torchvision|triton|cuda-[a-z]+|nvidia-(cu|nccl|nvjitlink|nvshmem|nvtx)[a-z0-9-]*)=='
    # One line a package, with its hashes.
    lines=$(sed -e ':join' -e '/\\$/{N;s/\\\n *//;b join' -e '}' "$requirements")
    echo "$lines" | grep -E "$torch_only" | sed 's/ --hash=[^ ]*//g' |
        "$uv" pip install "$@" --no-deps --python "$python" --index-url "$TORCH_INDEX" -r - ||
        failed "PyTorch's wheels for CPUs come from $TORCH_INDEX; TORCH_INDEX names another place."
    echo "$lines" | grep -vE "$cuda_only" |
        "$uv" pip install "$@" --no-deps --require-hashes --python "$python" -r - ||
        failed "It needs a network, and some GB of disk."
    ;;
*)
    echo "TORCH is cuda or cpu, not $torch." >&2
    exit 1
    ;;
esac
