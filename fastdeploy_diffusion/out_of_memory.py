"""Out-of-memory errors of all runtimes."""

# Of Paddle; of C++, which OpenVINO passes on; of ONNX Runtime; of the system.
_WORDS = (
    "ResourceExhausted",
    "bad_alloc",
    "bad_array_new_length",
    "Failed to allocate memory",
    "Cannot allocate memory",
)


def tells_of_memory(error: BaseException) -> bool:
    """Tell whether an error, or its cause, is an out-of-memory error."""
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and cause not in seen:
        if isinstance(cause, MemoryError) or any(word in str(cause) for word in _WORDS):
            return True
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return False
