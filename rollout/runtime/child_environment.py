"""The environment variables of child processes: those that they need, without the keys and tokens of the user."""

import os

NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHASHSEED", "PYTHONUNBUFFERED", "PYTHONWARNINGS"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
        *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "CC", "CXX", "CUDAHOSTCXX", "JAX_PLATFORMS", "XLA_FLAGS"),
    }
)
PREFIXES = (
    *("LC_", "CUDA_", "NVIDIA_", "NCCL_", "NVSHMEM_", "UCX_", "GLOO_", "FI_", "HIP_", "ROCR_", "HSA_"),
    *("TORCH", "PYTORCH_", "TRITON_", "FLASHINFER_", "VLLM_", "TPU_", "CLOUD_TPU_", "LIBTPU_", "PJRT_"),
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "MALLOC_", "TOKENIZERS_"),
)
SECRETS = ("KEY", "KEY_ID", "TOKEN", "SECRET", "PASSWORD", "CREDENTIALS")  # ends of names that no prefix lets through
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
# A process that downloads needs these too. A proxy's address may hold a password.
NETWORK = (
    *PROXIES,
    *(name.upper() for name in PROXIES),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
KAGGLE = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR")


def child_environment(*more: str) -> dict[str, str]:
    """Return the environment variables of this process that a child process gets.

    Args:
        more: The names of further variables that this child needs, such as those in `NETWORK`.
    """
    return {name: value for name, value in os.environ.items() if name in more or _is_passed(name)}


def _is_passed(name: str) -> bool:
    return name in NAMES or (name.startswith(PREFIXES) and not name.upper().endswith(SECRETS))
