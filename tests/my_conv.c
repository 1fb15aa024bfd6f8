/* MyConv: y = activation(conv(x, filters) + bias), as custom_convs.my_conv.
 *
 * Operands: x [batch, height, width, in], filters [rows, columns, in, out], bias [out] or absent.
 * Attributes: strides, padding (SAME or VALID), activation (NONE, RELU or TANH).
 */
#include <math.h>
#include <string.h>

#include "kernel.h"

const char kCode[] = "MyConv";

typedef struct {
  int size, window, stride, before, steps;
} Axis;

static Axis axis_of(const Call* call, int axis) {
  Axis a = {operand(call, 0)->dims->data[axis + 1], operand(call, 1)->dims->data[axis], 0, 0, 0};
  a.stride = (int)number_at(call, "strides", axis, 1);
  if (strcmp(text(call, "padding", ""), "VALID") == 0) {
    a.steps = (a.size - a.window) / a.stride + 1;
    return a;
  }
  a.steps = (a.size + a.stride - 1) / a.stride;
  const int all = (a.steps - 1) * a.stride + a.window - a.size;
  a.before = all > 0 ? all / 2 : 0;
  return a;
}

TfLiteStatus prepare(const Call* call) {
  const TfLiteTensor *x = operand(call, 0), *filters = operand(call, 1);
  if (x->dims->size != 4 || x->dims->data[3] != filters->dims->data[2]) {
    return fail(call, "x has %d axes", x->dims->size);
  }
  const int shape[4] = {x->dims->data[0], axis_of(call, 0).steps, axis_of(call, 1).steps,
                        filters->dims->data[3]};
  return set_shape(call, 0, 4, shape);
}

TfLiteStatus evaluate(const Call* call) {
  const TfLiteTensor *x = operand(call, 0), *filters = operand(call, 1), *bias = operand(call, 2);
  const Axis rows = axis_of(call, 0), columns = axis_of(call, 1);
  const char* activation = text(call, "activation", "NONE");
  const int in = filters->dims->data[2], out = filters->dims->data[3];
  float* y = result(call, 0)->f32;
  for (int n = 0; n < x->dims->data[0]; ++n)
    for (int r = 0; r < rows.steps; ++r)
      for (int c = 0; c < columns.steps; ++c)
        for (int o = 0; o < out; ++o) {
          float sum = bias == NULL ? 0.0f : bias->f32[o];
          for (int i = 0; i < rows.window; ++i)
            for (int j = 0; j < columns.window; ++j) {
              const int row = r * rows.stride + i - rows.before;
              const int column = c * columns.stride + j - columns.before;
              if (row < 0 || row >= rows.size || column < 0 || column >= columns.size) continue;
              for (int k = 0; k < in; ++k)
                sum += x->f32[((n * rows.size + row) * columns.size + column) * in + k] *
                       filters->f32[((i * columns.window + j) * in + k) * out + o];
            }
          if (strcmp(activation, "RELU") == 0) sum = sum > 0 ? sum : 0;
          if (strcmp(activation, "TANH") == 0) sum = tanhf(sum);
          *y++ = sum;
        }
  return kTfLiteOk;
}
