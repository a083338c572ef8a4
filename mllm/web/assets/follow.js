// Keep the newest of the conversation in view, unless the reader has scrolled up.
const room = document.documentElement;
let follows = true;
window.addEventListener("scroll", () => {
  follows = room.scrollHeight - window.innerHeight - window.scrollY < 160;
});
watch("value", () => {
  if (follows) window.scrollTo({ top: room.scrollHeight });
});
