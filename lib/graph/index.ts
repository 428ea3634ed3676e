/**
 * `node-mae/graph`: the tape, the table of ops and programs, for building other models. Unstable: names may change with any version.
 */
export { ops, type OpName } from './ops';
export type { Attributes, GradientContext, Operands, OpRow, TraceInfo } from './op';
export { Tape, type Launch, type Trace, type TracedOp } from './tape';
export { plan, type Plan } from './plan';
export { Store, type Segment } from './store';
export { Program, type Inputs, type ProgramOptions, type Stage } from './program';
export { openDevice, devices, type OpenDevice, type Precision } from './device';
export { encodeControl, CONTROL_BYTES, type Control } from './control';
export type { Constant, DType, Parameter, Shape, Tensor } from './tensor';
export * from '../nn/layers';
export { ParameterFactory, constant, normal, xavierUniform, type Init } from '../nn/init';
