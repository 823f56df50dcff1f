"""The graphs that Graphonomy's parser reasons over: constants that its checkpoint does not hold.

Nodes are labels: PASCAL-Person-Part's 7 (source) and CIHP's 20 (target); edges join parts that
touch. Numbers from Graphonomy's graph file (MIT licence, see THIRD_PARTY.md).
"""

import numpy as np
from jaxtyping import Float

SOURCE_NODES = 7
TARGET_NODES = 20

# PASCAL-Person-Part, self loops among them.
SOURCE_EDGES = (
    *((i, i) for i in range(SOURCE_NODES)),
    *((1, 2), (2, 3), (2, 5), (3, 4), (5, 6)),
)
# CIHP: no self loops, and the background touches nothing.
TARGET_EDGES = (
    *((1, 2), (1, 13), (2, 13), (3, 14), (3, 15), (4, 13)),
    *((5, i) for i in (6, 7, 9, 10, 11, 12, 14, 15)),
    *((6, i) for i in (7, 10, 11, 14, 15, 16, 17)),
    *((7, i) for i in (9, 10, 11, 12, 14, 15)),
    *((8, i) for i in (16, 17, 18, 19)),
    *((9, i) for i in (10, 16, 17, 18, 19)),
    *((10, i) for i in (11, 12, 13, 14, 15, 16, 17)),
    *((11, 13), (12, 16), (12, 17), (16, 18), (17, 19)),
)
# How alike label i of CIHP (row) and label j of PASCAL (column) are, by their names' word vectors.
SIMILARITY = (
    (1.0, 0.396158785, 0.163731664, 0.326872319, 0.340693682, 0.28477487, 0.301137805),
    (0.353330523, 0.462015301, 0.216633394, 0.384824604, 0.348172933, 0.351395637, 0.317759782),
    (0.327271938, 0.523214698, 0.305387199, 0.376934618, 0.375259966, 0.427423507, 0.429226458),
    (0.174180835, 0.308261126, 0.283776134, 0.41610834, 0.364970684, 0.416643202, 0.368962556),
    (0.187575847, 0.256695271, 0.137243494, 0.204157487, 0.178416163, 0.200046763, 0.175975561),
    (0.406085223, 0.547477722, 0.444880813, 0.767490804, 0.697462082, 0.785668314, 0.722146571),
    (0.375039816, 0.367052287, 0.294799954, 0.351398528, 0.317314625, 0.422374874, 0.391628027),
    (0.354484618, 0.39019829, 0.310925961, 0.378741086, 0.346289515, 0.410485476, 0.38137871),
    (0.225985557, 0.275194734, 0.227039531, 0.284117371, 0.251672775, 0.379338115, 0.349802971),
    (0.238935784, 0.343332499, 0.339835763, 0.351554215, 0.320723802, 0.465425164, 0.438184202),
    (0.330642611, 0.527285099, 0.757788181, 0.587926209, 0.567112863, 0.624447584, 0.608791769),
    (0.289234042, 0.327713341, 0.261981785, 0.311417192, 0.248947755, 0.327449292, 0.267625451),
    (0.279865742, 0.348193258, 0.370693922, 0.405851096, 0.370004535, 0.494660079, 0.462711602),
    (0.421155304, 0.638829529, 0.351848662, 0.5118922, 0.526008606, 0.493146569, 0.511504769),
    (0.369157791, 0.68042922, 0.498775125, 0.820427358, 0.82483995, 0.712442338, 0.723181069),
    (0.413777471, 0.69368577, 0.499794364, 0.834241271, 0.849662721, 0.714970052, 0.736783981),
    (0.324857712, 0.633957922, 0.518532753, 0.707321882, 0.703399122, 0.823478699, 0.826203883),
    (0.37248221, 0.653443396, 0.525175393, 0.727524996, 0.734493792, 0.835665882, 0.84942168),
    (0.368656397, 0.595387816, 0.325177401, 0.603273273, 0.566496074, 0.625971377, 0.594381094),
    (0.41500333, 0.607137501, 0.323773086, 0.614313364, 0.58888793, 0.626268148, 0.606076002),
)


def normalized_adjacency(
    edges: tuple[tuple[int, int], ...], nodes: int
) -> Float[np.ndarray, "n n"]:
    """D^-1/2 (A + I) D^-1/2, float32 [nodes, nodes], of undirected edges.

    A self loop among the edges makes that node's diagonal 2 before normalisation, as in the
    official PASCAL graph (0.9 % of the logits).
    """
    adjacency = np.zeros((nodes, nodes))
    for i, j in edges:
        adjacency[i, j] = adjacency[j, i] = 1
    adjacency += np.eye(nodes)
    root = adjacency.sum(1) ** -0.5
    return (root[:, None] * adjacency * root).astype(np.float32)


SOURCE_ADJACENCY = normalized_adjacency(SOURCE_EDGES, SOURCE_NODES)
TARGET_ADJACENCY = normalized_adjacency(TARGET_EDGES, TARGET_NODES)


def _softmax_rows(table: np.ndarray) -> np.ndarray:
    """ReLU, then a softmax over each row, in float64."""
    exponential = np.exp(np.maximum(table, 0))
    return (exponential / exponential.sum(1, keepdims=True)).astype(np.float32)


# [20, 7]: what share of each source node a target node receives.
TRANSFER = _softmax_rows(np.asarray(SIMILARITY, np.float64))
