"""Options of the gallery that are functions; see conf.py."""

import warnings

# From linear models to networks, then codes of other kinds, then tables, counts and searches.
ORDER = (
    "plot_first_look.py",
    "plot_lineage.py",
    "plot_swap_pca.py",
    "plot_missing_values.py",
    "plot_autoencoder.py",
    "plot_not_generative.py",
    "plot_vae.py",
    "plot_vae_beta.py",
    "plot_interpolation.py",
    "plot_adversarial_codes.py",
    "plot_helmholtz_machine.py",
    "plot_vqvae.py",
    "plot_vqvae_codes.py",
    "plot_latent_density.py",
    "plot_pca_generator.py",
    "plot_latent_interpolation.py",
    "plot_choose_model.py",
    "plot_latent_size.py",
    "plot_mixed_tables.py",
    "plot_cells.py",
    "plot_words.py",
    "plot_photon_counts.py",
    "plot_low_light.py",
)

_saved_filters = []


def position(file_name):
    """Place of an example in the gallery."""
    if file_name not in ORDER:
        raise ValueError(
            f"examples/{file_name} has no place in the gallery: add it to ORDER in "
            "docs/gallery_options.py"
        )
    return ORDER.index(file_name)


def warnings_as_errors(gallery_conf, file_name, when):
    """Makes every warning of an example an error, as `python -W error` does."""
    if when == "before":
        _saved_filters[:] = warnings.filters
        warnings.resetwarnings()
        warnings.simplefilter("error")
        # `plt.show()` has nothing to show while the gallery collects the pictures.
        warnings.filterwarnings("ignore", message=".*is non-interactive, and thus cannot be shown")
    else:
        warnings.resetwarnings()
        warnings.filters[:] = _saved_filters
