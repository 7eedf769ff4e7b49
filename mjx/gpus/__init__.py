"""One sheet per GPU: peaks, memory, links, and how to compile for it without one."""
