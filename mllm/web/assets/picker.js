// Takes one picture, from a file, a drop or the clipboard, and sends its bytes.
const input = element.querySelector("input");
const isShown = () => element.offsetParent !== null;

function send(file) {
  if (file.size > props.max_bytes) return trigger("upload", { size: file.size, picture: null });
  const reader = new FileReader();
  reader.onload = () => trigger("upload", { size: file.size, picture: reader.result });
  reader.readAsDataURL(file);
}

element.querySelector("button").addEventListener("click", () => input.click());
input.addEventListener("change", () => {
  if (input.files.length) send(input.files[0]);
  input.value = "";
});

function hasFiles(transfer) {
  return transfer && Array.from(transfer.types).includes("Files");
}

window.addEventListener("dragover", (event) => {
  if (!isShown() || !hasFiles(event.dataTransfer)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
window.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
window.addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!isShown() || !hasFiles(event.dataTransfer)) return;
  event.preventDefault();
  send(event.dataTransfer.files[0]);
});
window.addEventListener("paste", (event) => {
  if (isShown() && event.clipboardData.files.length) send(event.clipboardData.files[0]);
});
