"""Where bytes are: questions to a file system, and files whose maker is not trusted."""
