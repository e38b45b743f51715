"""Deploy configs that `exporter config init` starts from; a package, so that installations carry the files along."""
