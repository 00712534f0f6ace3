"""The list of packages; everything else about the distribution is in pyproject.toml.

setuptools cannot find packages under a prefix, and a list by hand would miss new ones in silence.
"""

from setuptools import find_packages, setup

PREFIXED = ("runtime", "distill", "convert")  # top-level folder -> nanocap.<folder>

packages = find_packages(include=["nanocap", "nanocap.*"])
for folder in PREFIXED:
    packages.append(f"nanocap.{folder}")
    packages.extend(f"nanocap.{folder}.{name}" for name in find_packages(folder))

setup(packages=packages)
