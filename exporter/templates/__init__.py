"""Files of pipelines that `exporter config init --ci` writes; a package, so that installations carry them along."""
