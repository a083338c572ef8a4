// Buttons with data-action: downloads happen here, everything else goes to the server.
function download(button) {
  const picture = button.closest("figure").querySelector("img");
  const link = document.createElement("a");
  link.href = picture.src;
  link.download = button.dataset.name;
  link.click();
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (!button) return;
  if (button.dataset.action === "download") return download(button);
  trigger("click", { number: Number(button.dataset.number ?? -1) });
});
