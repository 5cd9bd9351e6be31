"""Layer 3: running user code in JavaScript child processes and answering its syscalls."""
