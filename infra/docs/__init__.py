"""The site: pages that are made of the code and of measured results, the build, and the check of its links.

`python -m infra.docs` does it all (`make docs`).
"""
