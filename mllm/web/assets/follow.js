// Keep the end of what is being said in view, unless the reader has moved away from it.
let follows = true;
let wasEmpty = true;

function noteReader() {
  const distance = element.getBoundingClientRect().bottom - window.innerHeight;
  follows = Math.abs(distance) < window.innerHeight / 2;
}

// Not "scroll": the page also scrolls by itself when its parts come and go.
for (const moved of ["wheel", "touchmove", "keydown"]) {
  window.addEventListener(moved, () => requestAnimationFrame(noteReader), { passive: true });
}

watch("value", () => {
  const isEmpty = !props.value;
  if (wasEmpty && !isEmpty) follows = true; // something new begins
  wasEmpty = isEmpty;
  if (follows && !isEmpty) element.scrollIntoView({ block: "end" });
});
