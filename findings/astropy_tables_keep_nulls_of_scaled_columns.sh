#!/usr/bin/env bash
# astropy 8.0.2: Table.read masks TNULL in a column of integers, unless TSCAL or TZERO scales it.
#
# A good engineer's guess: a FITS table has TNULL where a column of integers has no value. Table.read
# masks these rows, whether or not the header also has TSCAL and TZERO, which only say how the
# stored integers become physical values.
# What happens: if TSCAL is not 1 or TZERO is not 0, nothing is masked. The stored null is scaled as
# if it were a value: of -99 with TSCAL 0.1 the table has -9.9. Nothing warns. The records of
# astropy.io.fits never mark nulls of integers. What works: compare the stored integers, which
# hdu.data.view(numpy.ndarray) has, with hdu.columns[name].null.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q astropy==8.0.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from astropy.io import fits
from astropy.table import Table

print(", ".join(f"{name} {version(name)}" for name in ("astropy", "numpy")))
path = f"{sys.argv[1]}/events.fits"
stored = np.array([1, 2, -99, 4], dtype=np.int16)
found = {}
for keywords in ({}, {"TSCAL1": 1, "TZERO1": 0}, {"TSCAL1": 0.1}, {"TZERO1": 5}):
    table = fits.BinTableHDU.from_columns([fits.Column("X", "I", array=stored, null=-99)])
    table.writeto(path, overwrite=True)
    for keyword, value in keywords.items():
        fits.setval(path, keyword, value=value, ext=1)
    values = Table.read(path, hdu=1)["X"].tolist()
    with fits.open(path) as file:
        raw = file[1].data.view(np.ndarray)["X"]
        null = (raw == file[1].columns["X"].null).tolist()
    found[str(keywords)] = values
    print(f"{keywords}: {values}; stored integers equal to TNULL: {null}")
    assert null == [False, False, True, False]
assert found["{}"] == [1, 2, None, 4]
assert found["{'TSCAL1': 1, 'TZERO1': 0}"] == [1, 2, None, 4]
assert np.allclose(found["{'TSCAL1': 0.1}"], [0.1, 0.2, -9.9, 0.4])
assert found["{'TZERO1': 5}"] == [6, 7, -94, 9]
print("as described")
PY
