"""Numbers from trained models and their predictions: experts' routing, static-dynamic correlation, scores with intervals."""
from .confusions import confusability, confusion_study, course, follow, lagged
from .correlation import (
           cka,
           matched_classes,
           prototype_study,
           prototypes,
           rsa,
           shared_space,
           similarity_by_layer,
           transfer_matrix,
)
from .experts import (
           index_table,
           seed_agreement,
           specificity_table,
           stability,
           token_maps,
           usage_table,
)
from .gains import foretold, gain_by_emotion
from .routing import (
           compare_modes,
           cost_of_experts,
           record_routing,
           routes_of,
           without_expert,
)
from .stimuli import (
           StimuliError,
           features,
           frames_of,
           layer_features,
           probabilities,
           subset,
)

__all__ = ["StimuliError", "cka", "compare_modes", "confusability", "confusion_study", "cost_of_experts", "course", "features", "follow",
           "foretold", "frames_of", "gain_by_emotion", "index_table", "lagged", "layer_features", "matched_classes", "probabilities",
           "prototype_study", "prototypes", "record_routing", "routes_of", "rsa", "seed_agreement", "shared_space", "similarity_by_layer",
           "specificity_table", "stability", "subset", "token_maps", "transfer_matrix", "usage_table", "without_expert"]
