"""Which files of docs/ pytest reads: the pages, and nothing that Sphinx needs or has built."""

collect_ignore = ["conf.py", "gallery_options.py"]
collect_ignore_glob = ["_build/*", "gallery/*", "reference/generated/*"]
