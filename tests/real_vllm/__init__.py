"""Our checkpoint behind a real vLLM, on a CPU: `python -m tests.real_vllm`; no part of `make test`."""
