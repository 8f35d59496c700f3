"""Two clicks on real tissue: outline one gland of the picture that ships with scikit-image."""

import histoclick
from histoclick import Click, Prompt
from histoclick.datasets.demo import demo_samples

sample = demo_samples(phantoms=0)[0]
segmenter = histoclick.load()  # or load("my-sam"), or load("path/to/model/folder")
encoded = segmenter.encode(sample.image)  # once per image
ys, xs = sample.mask.nonzero()
prompt = Prompt(clicks=(Click(x=xs.mean(), y=ys.mean()),))
prediction = segmenter.predict(encoded, prompt)
prompt = prompt.add(Click(x=5, y=5, positive=False))
prediction = segmenter.predict(encoded, prompt, previous=prediction)
print(f"{prediction.mask.sum()} of {prediction.mask.size} pixels belong to the gland")
