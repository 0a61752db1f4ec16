"""Numbers from trained models and their predictions: experts' routing, static-dynamic correlation, scores with intervals."""
from .confusions import confusability, confusion_study, course, follow
from .correlation import cka, matched_classes, prototype_study, prototypes, rsa, similarity_by_layer, transfer_matrix
from .experts import compare_modes, record_routing, routes_of, seed_agreement, specificity_table, token_maps, usage_table, without_expert
from .stimuli import StimuliError, features, frames_of, layer_features, probabilities, subset

__all__ = ["StimuliError", "cka", "compare_modes", "confusability", "confusion_study", "course", "features", "follow", "frames_of",
           "layer_features", "matched_classes", "probabilities", "prototype_study", "prototypes", "record_routing", "routes_of",
           "rsa", "seed_agreement", "similarity_by_layer", "specificity_table", "subset", "token_maps", "transfer_matrix",
           "usage_table", "without_expert"]
