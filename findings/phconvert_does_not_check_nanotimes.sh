#!/usr/bin/env bash
# phconvert 0.10.2: the validation of Photon-HDF5 checks the lengths of detectors and particles, but
# not that of nanotimes, nor the order of timestamps.
#
# A good engineer's guess: save_photon_hdf5 validates what it writes, and refuses arrays in
# photon_data that do not have one entry for each photon, so that a reader of validated files need
# not compare their lengths. Timestamps of photons are in order.
# What happens: detectors of another length raise Invalid_PhotonHDF5, and so do particles. Nanotimes
# of another length are written, and assert_valid_photon_hdf5 accepts the file, as it does
# timestamps that decrease. A reader has to check both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q phconvert==0.10.2 tables==3.11.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - "$folder" <<'PY'
import contextlib
import io
import sys
from importlib.metadata import version

import numpy as np
import tables
from phconvert import hdf5

print(", ".join(f"{name} {version(name)}" for name in ("phconvert", "tables", "numpy")))
path = f"{sys.argv[1]}/photons.h5"


def outcome(timestamps, **arrays):
    """What saving four photons, and the validation of the file, say."""
    names = ("spots", "spectral_ch", "polarization_ch", "split_ch")
    setup = {"num_pixels": 2, **{f"num_{name}": 1 for name in names}}
    setup |= {"modulated_excitation": False, "lifetime": True, "laser_repetition_rates": [2e7]}
    setup |= {"excitation_cw": [False], "excitation_alternated": [False]}
    photons = {"timestamps": np.array(timestamps), "detectors": np.array([0, 1, 0, 1])}
    photons["nanotimes"] = np.array([5, 6, 7, 8])
    photons["timestamps_specs"] = {"timestamps_unit": 5e-8}
    photons["nanotimes_specs"] = {"tcspc_unit": 1e-9, "tcspc_num_bins": 50}
    photons |= {name: np.array(values) for name, values in arrays.items()}
    content = {"description": "four photons", "setup": setup, "photon_data": photons}
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            hdf5.save_photon_hdf5(content, h5_fname=path, overwrite=True)
            with tables.open_file(path) as file:
                hdf5.assert_valid_photon_hdf5(file)
        except hdf5.Invalid_PhotonHDF5 as error:
            tables.file._open_files.close_all()
            return f"refused: {error}"
        return "accepted"


found = {
    "complete": outcome([1, 3, 5, 9]),
    "three detectors": outcome([1, 3, 5, 9], detectors=[0, 1, 0]),
    "three particles": outcome([1, 3, 5, 9], particles=[0, 1, 0]),
    "three nanotimes": outcome([1, 3, 5, 9], nanotimes=[5, 6, 7]),
    "timestamps that decrease": outcome([1, 5, 3, 9]),
}
for case, said in found.items():
    print(f"{case}: {said}")
assert [said.split(":")[0] for said in found.values()] == [
    "accepted",
    "refused",
    "refused",
    "accepted",
    "accepted",
]
print("as described")
PY
