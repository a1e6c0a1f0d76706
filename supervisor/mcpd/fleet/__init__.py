"""The shell: runs instances, carries messages between them and sessions. The only package that starts tasks."""
