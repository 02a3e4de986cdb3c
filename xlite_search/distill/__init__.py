"""Knowledge distillation from a multi-label teacher."""
