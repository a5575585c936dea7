"""
Counts of words: a few codes for a classifier
=============================================

A document is a row of word counts, of which most are zero. A VAE with ``likelihood="poisson"``
models the words of a document given their number, which is a multinomial model, and reads sparse
matrices. A classifier that gets six codes of simulated documents recognises more of them than the
same classifier that gets the counts of all words, and about as many as with the codes of PCA. The
VAE also gives the probability of a document, which chooses the number of codes.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import threadpool_limits

from skae import VAE

threadpool_limits(1)  # matrices are small, so that more threads would be slower

# %%
# Simulated documents
# -------------------
# Documents are drawn from a topic model: half of the words are from a distribution that all
# documents share, the others from six topics, in proportions that differ between documents. Each of
# four classes has its own mean proportions. Documents have 10 to 1000 words.

n_documents, n_words, n_topics, n_classes = 1600, 800, 6, 4
rng = np.random.default_rng(0)
topics = rng.dirichlet(np.full(n_words, 0.05), n_topics)
common = rng.dirichlet(np.full(n_words, 0.3))
of_class = rng.dirichlet(np.full(n_topics, 0.4), n_classes)
label = rng.choice(n_classes, n_documents)
proportion = np.array([rng.dirichlet(0.1 + 4 * of_class[c]) for c in label])
length = np.exp(rng.uniform(np.log(10), np.log(1000), n_documents)).astype(int)
words = rng.multinomial(length, 0.5 * proportion @ topics + 0.5 * common)
counts = sparse.csr_array(words)
share = counts.nnz / (n_documents * n_words)
print(f"{n_documents} documents, {n_words} words, {100 * (1 - share):.0f} % of counts are zero")

train, test = train_test_split(np.arange(n_documents), test_size=0.5, random_state=0)

# %%
# Three pipelines
# ---------------
# The same classifier gets all counts, six principal components of log counts, or six codes of a
# VAE. The VAE and PCA get the sparse matrix. Only the classifier of all counts needs a dense array.


def classifier():
    return HistGradientBoostingClassifier(max_iter=30, random_state=0)


def topic_vae(n_components):
    settings = {"max_iter": 20, "learning_rate": "cosine", "random_state": 0}
    return VAE(n_components, likelihood="poisson", **settings)


to_dense = FunctionTransformer(lambda X: X.toarray(), accept_sparse=True)
to_logs = FunctionTransformer(np.log1p, accept_sparse=True)
pipelines = {
    "all counts": make_pipeline(to_dense, classifier()),
    "PCA(6) of log counts": make_pipeline(to_logs, PCA(6, random_state=0), classifier()),
    "VAE(6) of counts": make_pipeline(topic_vae(6), classifier()),
}

edges = np.array([10, 32, 100, 316, 1000])
of_length = np.digitize(length[test], edges[1:-1])
correct = {}
print(f"{'held-out documents that are recognised':<42}all  by their number of words")
print(f"{'':<45}" + "".join(f"{a:>7}-{b}" for a, b in pairwise(edges)))
for name, pipeline in pipelines.items():
    is_right = pipeline.fit(counts[train], label[train]).predict(counts[test]) == label[test]
    correct[name] = [is_right[of_length == i].mean() for i in range(len(edges) - 1)]
    parts = "".join(f"{value:>10.2f}" for value in correct[name])
    print(f"{name:<38}{is_right.mean():>7.2f}{parts}")
    correct[name].append(is_right.mean())
assert correct["VAE(6) of counts"][-1] > correct["all counts"][-1] + 0.02

# %%
# How many codes
# --------------
# The score of the VAE is a lower bound on the log-likelihood of the counts. That of held-out
# documents ranks numbers of codes without the labels. Proportions of six topics have five degrees
# of freedom.

sizes = (1, 2, 4, 6, 10)
bounds = [topic_vae(size).fit(counts[train]).score(counts[test]) for size in sizes]
best = sizes[int(np.argmax(bounds))]
print("codes " + "".join(f"{size:>8}" for size in sizes))
print("nats  " + "".join(f"{bound:>8.1f}" for bound in bounds))
assert 4 <= best <= 8

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
groups = [f"{a}-{b}" for a, b in pairwise(edges)]
styles = ("0.4", "|:"), ("#E69F00", "s--"), ("#0072B2", "o-")
for (name, values), (colour, style) in zip(correct.items(), styles, strict=True):
    left.plot(groups, values[:-1], style, color=colour, label=name, ms=7)
left.set(xlabel="words in the document", ylabel="share that is recognised")
left.legend()
right.plot(sizes, bounds, "o-", color="#0072B2")
right.set(xlabel="number of codes", ylabel="bound, nats per held-out document")

# %%
# Words of a code
# ---------------
# ``inverse_transform`` returns the expected counts of a document with the geometric mean length of
# the training documents. Their ratio for two values of a code names the words that the code
# describes, here for each code the five that grow most.

vae = pipelines["VAE(6) of counts"][0]
low, high = (np.log(vae.inverse_transform(2 * sign * np.eye(6))) for sign in (-1, 1))
for code, change in enumerate(high - low):
    largest = np.argsort(-change)[:5]
    nearest = topics[:, largest].sum(axis=1).argmax()
    print(f"code {code}: words {', '.join(map(str, largest))}; most frequent in topic {nearest}")

plt.show()
