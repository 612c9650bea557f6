"""The stages of an experiment, in their order: one module each, with the class of its tasks."""
