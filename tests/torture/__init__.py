"""What is done to files, disks and processes while a run goes on, and what comes of it.

``PYTHONPATH=tests python -m torture`` does it all, in less than ten minutes, and writes
the table of docs/faults.md.
"""
