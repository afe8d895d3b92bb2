"""Next-token cross-entropy over labelled positions.

Pre-training, decay and SFT all use it; they differ in which positions carry a label.

Shape suffixes: B rows, T positions, L labelled positions, D width.
"""

from torch import Tensor

from indexlm.feed.packing import Batch
from indexlm.model.transformer import Transformer
from indexlm.tokens.chat_format import IGNORED
from indexlm.train.objectives.chunks import cross_entropy


def language_loss(model: Transformer, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
    """(summed loss in nats, number of labelled positions, no further metrics)."""
    hidden_BTD = model(
        batch.ids_BT, positions_BT=batch.positions_BT, documents_BT=batch.documents_BT
    )
    # Looked for once: a GPU is waited for every time.
    labelled_L = (batch.labels_BT != IGNORED).flatten().nonzero()[:, 0]
    labels_L = batch.labels_BT.flatten().index_select(0, labelled_L)
    hidden_LD = hidden_BTD.flatten(0, 1).index_select(0, labelled_L)
    return cross_entropy(model, hidden_LD, labels_L), len(labels_L), {}
