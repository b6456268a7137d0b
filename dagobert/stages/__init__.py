"""One module a stage: `inputs(params)`, `OUTPUTS` and `run(params)`. They know paths; the library below them does not."""
